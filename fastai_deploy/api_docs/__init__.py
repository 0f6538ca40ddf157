"""Documents for callers of an API: the OpenAPI document, the demo page, and client code.

All are generated from the settings, the bundle's labels and the contract's schema.
"""
