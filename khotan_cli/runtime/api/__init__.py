"""The management API: operations of the app's services, one module per noun, and the ASGI application that serves them."""
