"""Models of Keras 3: their configuration and arrays are read, built anew in tf_keras, and compared."""
