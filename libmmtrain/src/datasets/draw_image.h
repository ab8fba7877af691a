#pragma once

#include <string>

#include "mmtrain/core/random.h"
#include "mmtrain/media/image.h"

// Pictures of textured shapes: what `generate_images` draws.
namespace mmtrain::datasets::detail {

constexpr int kDrawnSize = 64;
constexpr int kShapes = 10, kTextures = 20;
constexpr int kDrawnClasses = kShapes * kTextures;

// Shape and texture of class `index`: as many different ones as possible among the first classes.
struct DrawnClass {
  int shape, texture;
};
DrawnClass drawn_class(int index);

// E.g. "striped disc".
std::string drawn_class_name(int index);

// Pixels of the shape's outermost points, both inclusive.
struct Box {
  int left = 0, top = 0, right = 0, bottom = 0;
};

struct Drawing {
  media::Image image;
  Box box;
};

// A picture of the class. Everything random comes from `random`.
Drawing draw(DrawnClass kind, RandomStream& random);

}  // namespace mmtrain::datasets::detail
