"""The target that is AWS: a SageMaker endpoint, and a Lambda behind API Gateway in front of it."""
