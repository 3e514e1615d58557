"""selfscale: train a small fully convolutional network, then find the smallest that does the task."""

__version__ = "0.2.0"
