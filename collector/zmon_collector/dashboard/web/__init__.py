"""The live page and its API: routes, views, events, security; served by uvicorn on a thread of its own."""
