"use strict";
// Browsers do not start workers for pages that are opened from a disk (file:). The site's search
// runs in one, so there its script runs in a hidden frame, with the two ends of a worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      const waiting = [];
      this.postMessage = (data) => waiting.push(data);
      const start = () => {
        document.body.append(frame);
        const inner = frame.contentWindow;
        inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        const script = frame.contentDocument.createElement("script");
        script.src = new URL(url, location.href).href;
        script.onload = () => {
          this.postMessage = (data) => inner.dispatchEvent(new MessageEvent("message", { data }));
          waiting.forEach(this.postMessage);
        };
        frame.contentDocument.body.append(script);
      };
      document.body ? start() : addEventListener("DOMContentLoaded", start);
      this.terminate = () => frame.remove();
    }
  };
}
