"""Client of Anodot's API for the sink and `zmon push`: target → pace → client → responses → chunk_sender."""
