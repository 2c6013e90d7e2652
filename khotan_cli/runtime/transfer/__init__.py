"""Transfer: how do records move? `ctx.sync` and `ctx.push`."""
