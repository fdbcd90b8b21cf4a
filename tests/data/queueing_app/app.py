"""An app that stayed in OpenXLab's queue for ever, as its author first published it in January 2024."""

import os
import subprocess

base_path = "./personal_assistant_4bit"
os.system(f"git clone https://code.openxlab.org.cn/someone/personal_assistant_4bit.git {base_path}")
os.system(f"cd {base_path} && git lfs pull")

os.system(
    "lmdeploy convert internlm-chat-7b ./personal_assistant_4bit --model-format awq --group-size 128 "
    "--dst_path ./workspace_hfmerge"
)

subprocess.call("lmdeploy serve api_server ./workspace_hfmerge", creationflags=subprocess.CREATE_NEW_CONSOLE)
os.system("lmdeploy serve gradio /home/xlab-app-center/workspace_hfmerge")
