"""Authentication: who says who we are? Strategies for `Plug.auth`, and the tokens that they fetch."""
