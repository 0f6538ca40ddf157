"""AWS: what is decided (templates, images, prices) and what is done (stacks, buckets, endpoints).

Of what is done:

    session, failures                       the one door, and the errors that come through it
    stacks, change_set, stack_events        a stack, its plan, what happens to it
    operations, deployment                  a template becomes a stack, or a stack goes
    bucket, upload, versions                where artifacts are kept, and which were deployed
    endpoint, public_api, logs, causes      what runs: asked, read, understood
    inventory, removal                      what there is, and that nothing is left
"""
