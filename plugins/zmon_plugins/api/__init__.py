"""How samples reach Anodot's API: table → pace → client → answers → courier. For the sink and `zmon push`."""
