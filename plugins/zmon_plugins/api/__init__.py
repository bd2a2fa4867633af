"""How samples reach Anodot's API: table → pace → client → answers → courier. Shared by the sink and `zmon push`."""
