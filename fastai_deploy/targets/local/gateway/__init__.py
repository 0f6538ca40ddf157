"""API Gateway, Lambda and the SageMaker runtime on this machine, in one process.

    client --HTTP--> app ----------> function ----boto3----> sagemaker_front --HTTP--> model server
                     route, key,     the real handler,       InvokeEndpoint and
                     usage plan,     out of the real zip     its errors
                     body limit

``app`` stands for API Gateway and builds the events that it builds; ``function`` stands for Lambda
and runs the very package that is uploaded there; ``sagemaker_front`` stands for the SageMaker
runtime. All listen on loopback addresses only.
"""
