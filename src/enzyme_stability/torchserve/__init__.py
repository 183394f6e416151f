"""Predictors in TorchServe: ``archive`` packs one, ``handler`` answers with it inside the server."""
