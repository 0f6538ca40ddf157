"""API Gateway, Lambda and the SageMaker runtime, emulated on this machine in one process.

    client --HTTP--> app ----------> function ----boto3---> sagemaker_runtime --HTTP--> model server
                     route, key,     the real handler,      InvokeEndpoint and
                     usage plan,     from the real zip      its errors
                     body limit

``app`` emulates API Gateway and builds the same events; ``function`` emulates Lambda and runs the
same package that is uploaded to AWS; ``sagemaker_runtime`` emulates the SageMaker runtime. All
listen on the loopback address only.
"""
