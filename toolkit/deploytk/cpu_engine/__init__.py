"""A serving engine for previews: any layout, on a CPU, behind the same OpenAI-style API as LMDeploy's.

Started as a process of its own:  python -m deploytk.cpu_engine MODEL --server-port 23333

`transformers serve` was looked at first. It answers the same routes, but serves whatever model of the hub a
request names, refuses `stream_options`, ends streams without [DONE], and reads neither AWQ on a CPU nor workspaces.
"""
