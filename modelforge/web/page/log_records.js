// The records of the log as they come, by server-sent events: an EventSource goes on by itself where it was cut off.
const AGAIN = 3000;

/**
 * Every record after a position. `onAnotherLog`: called once where the position is none of the log that the server has
 * now; nothing comes after that. The function that is returned ends it.
 */
export function subscribeRecords(after, onRecord, onAnotherLog) {
  let [last, source, timer, ended] = [after, null, 0, false];
  const open = () => {
    source = new EventSource(`/api/events/stream?after=${last}`);
    source.onmessage = (event) => {
      const record = JSON.parse(event.data);
      if (record.position <= last) return;
      last = record.position;
      onRecord(record);
    };
    source.onerror = async () => {
      if (source.readyState !== EventSource.CLOSED) return; // it comes back by itself
      // It gives up on any answer that is no stream: where the server is there, see why.
      const answer = await fetch("/api/info").catch(() => null);
      const known = answer?.ok ? (await answer.json().catch(() => null))?.position ?? null : null;
      if (ended) return;
      if (known !== null && known < last) onAnotherLog();
      else timer = setTimeout(open, AGAIN); // also for who has to sign in again
    };
    source.addEventListener("goodbye", () => {
      source.close();
      timer = setTimeout(open, AGAIN);
    });
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    source.close();
  };
}
