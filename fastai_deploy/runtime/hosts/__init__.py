"""The servers in AWS's container images: TorchServe, the PyTorch toolkit, Ray Serve."""
