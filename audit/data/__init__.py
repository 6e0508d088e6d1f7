"""The embedded data set: the first 1,000 Fashion-MNIST test images, in the data set's order (licence beside it)."""
