"""Transfer of records: `ctx.sync` and `ctx.push`."""
