// Listen to a call: both sides through the browser's loudspeaker, the caller left, the agent right.

const AHEAD_SECONDS = 0.06;
const NORMAL = 1000;

// Begin to listen; call what comes back to stop. `over` is called when it ends by itself, and told whether as it should: with the call.
export function listen(path, over) {
  const address = new URL(path, document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const context = new AudioContext();
  let rate = 8000;
  let next = 0;
  let crowded = false;
  let waking = null;
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") { rate = JSON.parse(data).rate_hz; return; }
    // It may have been taken away, by a telephone call for one: what came meanwhile is over.
    if (context.state !== "running") {
      waking ??= context.resume().catch(() => {}).finally(() => { waking = null; });
      return;
    }
    // What a slow network brings in a heap would be heard over one another: it is left out, until what follows is close behind.
    const ahead = next - context.currentTime;
    crowded = ahead > (crowded ? 1 : 4) * AHEAD_SECONDS;
    if (crowded) return;
    const samples = new Int16Array(data);
    const length = samples.length / 2;
    const buffer = context.createBuffer(2, length, rate);
    for (const side of [0, 1]) {
      const channel = buffer.getChannelData(side);
      for (let n = 0; n < length; n += 1) channel[n] = samples[2 * n + side] / 32768;
    }
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    // What comes late is played at once, and what follows stays close behind.
    if (ahead < 0) next = context.currentTime + AHEAD_SECONDS;
    source.start(next);
    next += buffer.duration;
  };
  const stop = () => { socket.onclose = null; socket.close(); context.close(); };
  socket.onclose = ({ code }) => { context.close(); over(code === NORMAL); };
  return stop;
}
