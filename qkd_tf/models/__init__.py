"""Float Keras models: every layer named, pixels in, logits out."""
