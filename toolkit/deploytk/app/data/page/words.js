// Every word of the page, in English and Chinese; the browser's language decides, or the settings.

const ENGLISH = {
  chat: "Chat", skip: "Skip to the message box", conversations: "Conversations", newChat: "New chat", settings: "Settings",
  export: "Export", exportMarkdown: "This chat as Markdown", exportJson: "This chat as JSON", exportAll: "All chats as JSON",
  messages: "Messages", message: "Message", send: "Send", stop: "Stop", toEnd: "To the end", greeting: "What would you like to know?",
  examples: ["Who are you, and what can you do?", "Explain in simple words what quantizing a model means.", "Write a Python function that tells whether a word is a palindrome.", "Write a story of five sentences about a lighthouse."],
  you: "You", model: "Model", copy: "Copy", copied: "Copied", edit: "Edit", again: "Answer again", retry: "Try again", save: "Send",
  cancel: "Cancel", previous: "Previous version", next: "Next version", version: "{at} of {of}", rename: "Rename {title}", remove: "Delete {title}",
  removeSure: "Delete “{title}”? This cannot be undone.", untitled: "New chat", name: "Name", image: "Image, not loaded: {alt}",
  thought: "Thoughts", thinking: "Thinking…", stopped: "Stopped.", cut: "Cut off after {tokens} tokens. More can be allowed under Settings, or ask to go on.",
  speed: "{speed} tokens/s", context: "{left} of {all} tokens of context left", full: "The context is full: start a new chat.",
  waiting: "Waiting for a place: {ahead} before you.", next1: "Waiting for a place: you are next.", sent: "Sent…", answering: "The model is answering.", answered: "The answer is complete.",
  busyRetry: "The server is full. Trying again in {seconds} s; your message is kept.", comesBack: "The model is not ready: {state}. Your message is kept and will be sent.",
  keyNeeded: "This chat needs a key. Enter your key under Settings: it is kept for this session.", openSettings: "Open Settings", key: "Key",
  enterKey: "Enter", keyWrong: "This is no key of this server.", keyTooOften: "Too many wrong keys. Wait a minute, then try again.", keyRight: "The key is right. It is kept for this session.",
  keyNotKept: "The key is right, but the browser keeps no cookie in this frame. Open the page at its own address.", ownAddress: "Open the page",
  system: "System prompt", preset: "Preset", presetNone: "None", presetOwn: "My own", presets: { translator: ["Translator", "Translate what the user writes: Chinese into English, everything else into Chinese. Give the translation alone."], coder: ["Programmer", "You are an experienced programmer. Give short, correct, runnable code first, then explain what is not obvious."], writer: ["Editor", "Improve the style, grammar and clarity of the user's text without changing its meaning. Keep its language."], teacher: ["Teacher", "Explain step by step, with a small example, in words that a beginner knows. Say so when you are not sure."] },
  savePreset: "Save as a preset", removePreset: "Delete the preset", presetName: "Name of the preset",
  temperature: "Temperature", topP: "Top-p", maxTokens: "Longest answer (tokens)", theme: "Appearance", themeAuto: "As the system", themeLight: "Light", themeDark: "Dark",
  language: "Language", languageAuto: "As the browser", removeAll: "Delete all chats", removeAllSure: "Delete all chats on this device? This cannot be undone.", close: "Close", defaults: "Reset",
  here: "Chats and settings stay in this browser.", notKept: "The browser keeps no more chats here: export or delete some.",
  loadingTitle: "The model is on its way", failedTitle: "The model cannot be served", awayTitle: "The server does not answer", away: "The page keeps asking and goes on by itself.",
  starting: "starting", fetching: "fetching the files", verifying: "checking the files", loading: "loading the model", ready: "ready", failed: "failed", draining: "stopping", stopping: "stopping",
  seconds: "{seconds} s", logLine: "Last line of the log", strangerFailed: "Enter your key under Settings to read why.",
  faults: { out_of_memory: "There is not enough memory. Plan with a shorter --session-len, a smaller --max-batch-size or --cache-max-entry-count, or take a larger GPU; end other programs on this one.", missing_file: "Files of the model are missing or cut. Run `git lfs pull`, or publish the bundle again.", not_fetched: "The files could not be fetched. For a private model set a token (HF_TOKEN, or DEPLOYTK_MODEL_TOKEN), then restart the app.", no_gpu: "No usable GPU was found. Start the app with a GPU (docker run --gpus all) and a driver that fits the CUDA version.", not_installed: "A program that the app needs is not installed. Run `pip install -r requirements.txt`, or use the image.", no_turbomind: "LMDeploy cannot load TurboMind here. Install the LMDeploy version that requirements.txt names, or plan with --engine pytorch.", late: "The model gave no token in time. Look into the whole log; DEPLOYTK_READY_S allows more time.", ended: "The engine ended. The last lines of its log are below; the whole log is in the app's output." },
  errors: { invalid_api_key: "Your key is needed (again). Enter your key under Settings: it is kept for this session.", too_many_requests: "Too many people are waiting. Try again in a moment.", busy: "There was no place at the model in time. Try again.", engine_lost: "The model stopped while it answered, and is started again. Try again in a moment.", timeout: "The answer took too long. Try again, or ask for less.", too_large: "The conversation is too large to be sent. Start a new chat.", context_length_exceeded: "The conversation no longer fits the context of the model. Start a new chat, or edit an earlier message.", not_ready: "The model is not ready. Try again in a moment.", network: "The server cannot be reached. Your message is kept: try again.", cross_site: "The server does not know this page's address: DEPLOYTK_ALLOWED_HOSTS has to name it.", unknown_host: "The server does not know this page's address: DEPLOYTK_ALLOWED_HOSTS has to name it.", other: "The server refused: {message}", empty: "The model answered nothing." },
};

const CHINESE = {
  chat: "对话", skip: "跳到输入框", conversations: "对话列表", newChat: "新对话", settings: "设置",
  export: "导出", exportMarkdown: "此对话（Markdown）", exportJson: "此对话（JSON）", exportAll: "全部对话（JSON）",
  messages: "消息", message: "输入消息", send: "发送", stop: "停止", toEnd: "到底部", greeting: "有什么可以帮您？",
  examples: ["你是谁？你能做什么？", "用简单的话解释什么是模型量化。", "写一个判断回文的 Python 函数。", "写一个五句话的小故事，关于一座灯塔。"],
  you: "您", model: "模型", copy: "复制", copied: "已复制", edit: "编辑", again: "重新回答", retry: "重试", save: "发送",
  cancel: "取消", previous: "上一个版本", next: "下一个版本", version: "第 {at} 个，共 {of} 个", rename: "重命名“{title}”", remove: "删除“{title}”",
  removeSure: "删除“{title}”？删除后无法恢复。", untitled: "新对话", name: "名称", image: "图片（未加载）：{alt}",
  thought: "思考过程", thinking: "思考中…", stopped: "已停止。", cut: "回答在 {tokens} 个 token 处截断。可在“设置”中调大上限，或让模型继续。",
  speed: "{speed} token/秒", context: "上下文剩余 {left} / {all} token", full: "上下文已满：请开始新对话。",
  waiting: "排队中：前面还有 {ahead} 位。", next1: "排队中：下一个就是您。", sent: "已发送…", answering: "模型正在回答。", answered: "回答完毕。",
  busyRetry: "服务器已满，{seconds} 秒后自动重试；您的消息已保留。", comesBack: "模型尚未就绪：{state}。您的消息已保留，稍后自动发送。",
  keyNeeded: "使用此对话需要密钥。请在“设置”中输入您的密钥，本次会话内有效。", openSettings: "打开设置", key: "密钥",
  enterKey: "确定", keyWrong: "密钥不正确。", keyTooOften: "错误次数过多，请一分钟后再试。", keyRight: "密钥正确，本次会话内有效。",
  keyNotKept: "密钥正确，但浏览器不允许此框架保存 Cookie。请在单独的页面中打开。", ownAddress: "打开页面",
  system: "系统提示词", preset: "预设", presetNone: "无", presetOwn: "自定义", presets: { translator: ["翻译", "翻译用户的文字：中文译成英文，其他语言译成中文。只给出译文。"], coder: ["程序员", "你是经验丰富的程序员。先给出简短、正确、可运行的代码，再解释不明显的地方。"], writer: ["编辑", "在不改变原意的前提下改进用户文字的风格、语法和清晰度，保持原来的语言。"], teacher: ["老师", "用初学者能懂的话分步解释，并举一个小例子。没有把握时请直说。"] },
  savePreset: "存为预设", removePreset: "删除预设", presetName: "预设名称",
  temperature: "温度", topP: "核采样（top-p）", maxTokens: "回答长度上限（token）", theme: "外观", themeAuto: "跟随系统", themeLight: "浅色", themeDark: "深色",
  language: "语言", languageAuto: "跟随浏览器", removeAll: "删除全部对话", removeAllSure: "删除此设备上的全部对话？删除后无法恢复。", close: "关闭", defaults: "恢复默认",
  here: "对话和设置只保存在此浏览器中。", notKept: "浏览器无法再保存对话：请导出或删除一些。",
  loadingTitle: "模型正在准备中", failedTitle: "模型无法启动", awayTitle: "服务器没有响应", away: "页面会继续尝试，并自动恢复。",
  starting: "启动", fetching: "下载文件", verifying: "校验文件", loading: "加载模型", ready: "就绪", failed: "失败", draining: "正在停止", stopping: "正在停止",
  seconds: "{seconds} 秒", logLine: "日志最后一行", strangerFailed: "请在“设置”中输入密钥以查看原因。",
  faults: { out_of_memory: "内存不足。请用更小的 --session-len、--max-batch-size 或 --cache-max-entry-count 重新规划，或换更大的 GPU；并结束占用此 GPU 的其他程序。", missing_file: "模型文件缺失或不完整。请运行 `git lfs pull`，或重新发布。", not_fetched: "文件下载失败。私有模型请设置令牌（HF_TOKEN 或 DEPLOYTK_MODEL_TOKEN），然后重启应用。", no_gpu: "没有可用的 GPU。请带 GPU 启动（docker run --gpus all），并使用与 CUDA 版本匹配的驱动。", not_installed: "缺少应用需要的程序。请运行 `pip install -r requirements.txt`，或使用镜像。", no_turbomind: "此处的 LMDeploy 无法加载 TurboMind。请安装 requirements.txt 指定的版本，或用 --engine pytorch 规划。", late: "模型没有在规定时间内给出 token。请查看完整日志；DEPLOYTK_READY_S 可延长时间。", ended: "推理引擎已退出。下面是日志的最后几行；完整日志见应用输出。" },
  errors: { invalid_api_key: "需要（重新）输入密钥。请在“设置”中输入您的密钥，本次会话内有效。", too_many_requests: "排队人数过多，请稍后再试。", busy: "等待时间内没有空位，请重试。", engine_lost: "模型在回答时中断，正在重新启动，请稍后重试。", timeout: "回答用时过长。请重试，或缩小问题。", too_large: "对话过长，无法发送。请开始新对话。", context_length_exceeded: "对话已超出模型的上下文。请开始新对话，或编辑之前的消息。", not_ready: "模型尚未就绪，请稍后再试。", network: "无法连接服务器。您的消息已保留，请重试。", cross_site: "服务器不认识此页面的地址：请在 DEPLOYTK_ALLOWED_HOSTS 中加入。", unknown_host: "服务器不认识此页面的地址：请在 DEPLOYTK_ALLOWED_HOSTS 中加入。", other: "服务器拒绝了请求（原文：{message}）", empty: "模型没有给出回答。" },
};

export const LANGUAGES = [ENGLISH, CHINESE];
let words = ENGLISH;

export function speak(choice) {
  const language = choice || navigator.language;
  words = language.toLowerCase().startsWith("zh") ? CHINESE : ENGLISH;
  document.documentElement.lang = words === CHINESE ? "zh-CN" : "en";
  translate(document);
}

// The words for a name such as "send" or "errors.busy", with {values} filled in; undefined where there are none.
export function word(name, values = {}) {
  const found = name.split(".").reduce((at, part) => at?.[part], words);
  return typeof found === "string" ? found.replace(/\{(\w+)\}/g, (_, key) => values[key]) : found;
}

export function translate(root) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = word(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) label(element, word(element.dataset.tLabel));
  for (const element of root.querySelectorAll("[data-t-placeholder]")) element.placeholder = word(element.dataset.tPlaceholder);
}

export function label(element, text) {
  element.setAttribute("aria-label", text);
  if (element.tagName === "BUTTON") element.title = text;
}
