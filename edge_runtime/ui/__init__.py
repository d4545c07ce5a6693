"""A local web page: a chat, pictures, and what leaves the device for them.

Needs the extra ``[ui]``: Gradio, on the server of the extra ``[api]``.
"""
