"""The container hosts of AWS's images: TorchServe, the PyTorch toolkit, Ray Serve."""
