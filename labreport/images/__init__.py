"""CIFAR-10 found, verified and split; the stand-in; augmentation."""
