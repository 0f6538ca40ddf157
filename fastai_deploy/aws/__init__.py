"""AWS: what to create (templates, images, prices), and the calls that create and delete it.

session, client_errors          the only access to AWS, and its errors translated
template, specs, images         the stacks' templates, and the container image
capacity, pricing               memory and cost of an instance type
stacks, deployment, rollout     stacks and change sets, applied and, on failure, rolled back
bucket, upload, versions        where artifacts are stored, and which were deployed
endpoint, public_api, logs      what runs: invoked and observed
status, doctor, permissions     the state of a stage, checks before a deploy, IAM policies
ownership, inventory, teardown  whose resources they are, which exist, and their deletion
"""
