"""A local server that speaks OpenAI's API: prompts stay on the device, only its trunk is away.

Needs the extra ``[api]``: Starlette and uvicorn.
"""
