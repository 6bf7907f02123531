// The least that an application does with a bundle; its size is what the bundle takes.
#include "classifier.h"

int main() {
  if (!classifier::SetUp()) return 1;
  const int8_t* logits = classifier::Run();
  return logits == nullptr ? 1 : classifier::Largest(logits);
}
