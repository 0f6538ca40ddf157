"""What callers of an API are given: its OpenAPI document, a page to try it, code to call it with.

Everything is drawn from the settings, the labels of the bundle and the contract's own schema.
"""
