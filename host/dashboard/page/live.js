// Live data, and its absence: what was true seconds ago is not shown as if it still were.

const SILENT_AFTER_MS = 5000; // a summary comes every second

export function listen(onSummary, onParts, onSilence) {
  let heard = performance.now();
  const source = new EventSource("/api/events");
  source.addEventListener("summary", (event) => {
    heard = performance.now();
    onSummary(JSON.parse(event.data));
  });
  source.addEventListener("parts", (event) => onParts(JSON.parse(event.data)));
  setInterval(() => {
    if (performance.now() - heard > SILENT_AFTER_MS) onSilence();
  }, 1000);
}
