"""Models of Keras 3: read as configuration and arrays, rebuilt in tf_keras, and compared."""
