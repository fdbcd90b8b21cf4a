"""Stage 7: bundle, image, model or URL -> Endpoint."""
