// A net of your own, trained in thirty lines: README's example.
#include <mmtrain/mmtrain.h>
#include <torch/torch.h>

using namespace mmtrain;

// Points in the plane; the class is the quadrant.
struct Quadrants final : SampleDataset {
  DatasetSpec spec() const override { return {{{"point", {2}}}}; }
  std::int64_t size() const override { return 2000; }
  Sample get(std::int64_t index) const override {
    RandomStream random(/*seed=*/1, RandomDomain::user, /*epoch=*/0, static_cast<std::uint64_t>(index));
    const double x = random.uniform(-1, 1), y = random.uniform(-1, 1);
    Sample sample;
    sample.inputs.insert("point", torch::tensor({x, y}, torch::kFloat32));
    sample.target = torch::tensor((x > 0) + 2 * (y > 0), torch::kInt64);
    return sample;
  }
};

int main() {
  auto data = std::make_shared<Quadrants>();
  DataLoader train(data, std::make_shared<RandomSampler>(data->size(), 0), {.batch_size = 64, .num_workers = 2});
  DataLoader val(data, std::make_shared<SequentialSampler>(data->size()), {.batch_size = 256});

  torch::nn::Sequential net(torch::nn::Linear(2, 32), torch::nn::ReLU(), torch::nn::Linear(32, 4));
  auto optimizer = std::make_shared<torch::optim::Adam>(net->parameters(), 1e-2);

  Trainer trainer(as_model(net), optimizer, cross_entropy_loss(), {.epochs = 5, .device = parse_devices("auto")[0]});
  trainer.add(std::make_shared<ConsoleLogger>());
  return trainer.fit(train, val).best_val_acc > 0.95 ? 0 : 1;
}
