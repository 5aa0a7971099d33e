"""A local model behind OpenAI's HTTP interface: `serve(model, settings)`, or `unigap serve`."""
