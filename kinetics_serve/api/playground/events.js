// Server-sent events of a POST, for which browsers have no reader of their own.

/** The data of each event in a stream of bytes. Comments are passed over. */
export async function* events(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length) yield data.map((line) => line.slice("data: ".length)).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the server stops the samples of a client that leaves
  }
}
