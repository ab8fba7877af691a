#include <mmtrain/batch/batch.h>
#include <mmtrain/core/version.h>

#include <iostream>

int main() {
  mmtrain::Batch batch;
  batch.target = torch::zeros({2}, torch::kInt64);
  std::cout << "mmtrain " << mmtrain::version() << ", " << batch.size() << " rows\n";
}
