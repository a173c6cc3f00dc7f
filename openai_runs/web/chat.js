// Page code of a chat: a message by POST, its answer read from the response's body.
// An ES module without dependencies; `openai_runs.web.SCRIPT` is its path.

/** Yield the server-sent events of a response as {event, data, id}, however it is cut. */
export async function* readEvents(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "", event = "", data = [], id = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // an event that has not ended is dropped, as EventSource does
      text += decoder.decode(value, { stream: true });
      const lines = text.replace(/\r\n|\r(?!$)/g, "\n").split("\n");
      text = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n"), id };
          event = "", data = [];
          continue;
        }
        const [, name, content] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (name === "data") data.push(content);
        else if (name === "event") event = content;
        else if (name === "id") id = content;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // where the caller stops before the end
  }
}

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 15000; // milliseconds between two reconnects
const MOST_SENDS = 4; // of a message whose request breaks before its answer begins
const LOST = "stream_interrupted"; // the back end has lost the run, which may go on
const OVER = new Set(["completed", "incomplete", "failed", "cancelled", "expired"]);

/**
 * One user's chat. The endpoints are `url` (POST, a message), and below it `events` (GET, the
 * answer at work), `history` (GET) and `stop` (POST).
 *
 * onMessage({id, role, text, isDone}): a message as it is by now; replace the one with this id.
 * onStatus({runId, status, message}): of the run that answers; `message` says why it failed.
 * onError({code, message, status}): the answer cannot be shown.
 */
export class Chat {
  #url; #headers; #on; #readers = new Set(); #texts = new Map();

  constructor({ url = "/chat", headers = {}, onMessage, onStatus = () => {}, onError = () => {} }) {
    this.#url = url;
    this.#headers = headers;
    this.#on = { message: onMessage, status: onStatus, error: onError };
  }

  /** Send a message, and return once its answer has ended; true where it was accepted. */
  async send(text) {
    const body = JSON.stringify({ text });
    // Browsers, too, may send a POST again whose answer was lost: the key has it answered once.
    const key = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    return this.#read((signal) => this.#fetch("", { method: "POST", headers, body, signal }));
  }

  /** Show what is being answered, as after a reload, until nothing is. */
  async follow() {
    return this.#read((signal, reader) => this.#ask(signal, reader), true);
  }

  /** Cancel the answer at work; a message that waits is answered next. */
  async stop() {
    const begun = [...this.#readers].filter((reader) => reader.runId && !reader.untilIdle);
    const response = await this.#call("/stop", { method: "POST" });
    for (const reader of response ? begun : []) {
      this.#on.status({ runId: reader.runId, status: "cancelled" });
      reader.controller.abort();
    }
  }

  /** Return {messages, before, waiting}: the newest messages, or those before a place. */
  async history(before) {
    const query = before ? `?before=${encodeURIComponent(before)}` : "";
    const response = await this.#call(`/history${query}`);
    return response ? response.json() : { messages: [], before: null, waiting: [] };
  }

  /** Stop reading; the answers go on. */
  close() {
    for (const reader of this.#readers) reader.controller.abort();
  }

  #fetch(path, { headers, ...options } = {}) {
    return fetch(this.#url + path, { ...options, headers: { ...this.#headers, ...headers } });
  }

  #ask(signal, { runId, lastId }) {
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const query = runId ? `?run_id=${encodeURIComponent(runId)}` : "";
    return this.#fetch(`/events${query}`, { headers, signal });
  }

  /** Return the response; null where it is an error, which is shown. */
  async #call(path, options) {
    try {
      const response = await this.#fetch(path, options);
      if (response.ok) return response;
      await this.#refused(response);
    } catch {
      this.#on.error({ code: "unreachable", message: "The server cannot be reached." });
    }
    return null;
  }

  /** Read an answer to its end, over connections that break. */
  async #read(request, untilIdle = false) {
    const controller = new AbortController(), signal = controller.signal;
    const reader = { controller, untilIdle, runId: "", lastId: "", status: "", isDone: false };
    this.#readers.add(reader);
    let pause = FIRST_PAUSE, isAccepted = untilIdle, hasBegun = false, failures = 0;
    try {
      for (;;) {
        try {
          const response = await request(signal, reader);
          if (response.status === 204) { // nothing is being answered any more
            if (!untilIdle && !hasBegun) await this.#showAnswered();
            return true;
          }
          const isPassing = response.status >= 500 || response.status === 429;
          if (!response.ok && !(isAccepted && isPassing)) return await this.#refused(response);
          isAccepted = true;
          for await (const event of response.ok ? readEvents(response) : []) {
            pause = FIRST_PAUSE, hasBegun = true;
            if (!this.#show(event, reader)) return true;
          }
        } catch (error) {
          if (signal.aborted) return true;
          if (!(error instanceof TypeError)) throw error; // not of the connection
          if (!isAccepted && ++failures === MOST_SENDS) {
            this.#on.error({ code: "not_sent", message: "The message could not be sent." });
            return false;
          }
        }
        if (reader.isDone && !reader.untilIdle) return true;
        if (reader.isDone) Object.assign(reader, { runId: "", lastId: "", isDone: false });
        else if (isAccepted && !reader.runId) reader.untilIdle = true; // which answer it is, nobody knows
        await new Promise((resume) => setTimeout(resume, pause));
        pause = Math.min(pause * 2, LONGEST_PAUSE);
        if (signal.aborted) return true;
        if (isAccepted) request = (signal, reader) => this.#ask(signal, reader);
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  /** Show what was answered while nothing of it could be read. */
  async #showAnswered() {
    const { messages } = await this.history();
    for (const message of messages) {
      if (message.role === "assistant") this.#write(message.id, message.text, true);
    }
  }

  /** Show an event; return whether there may be more. */
  #show({ event, data, id }, reader) {
    if (event === "error") {
      const error = JSON.parse(data);
      if (error.code === LOST && reader.runId) return true; // follows the run
      this.#on.error(error);
      return false;
    }
    if (id) reader.lastId = id;
    if (event === "done") {
      // A run that waits for tools goes on, and a run that has ended is over.
      reader.isDone = reader.status === "" || OVER.has(reader.status);
    } else if (event === "thread.message.delta") {
      const { id, delta } = JSON.parse(data);
      this.#write(id, (this.#texts.get(id) ?? "") + wordsOf(delta.content), false);
    } else if (event.startsWith("thread.message.")) {
      // These have the text as it is by then, and so take the place of all that came before.
      const { id, role, content } = JSON.parse(data);
      if (role === "assistant") this.#write(id, wordsOf(content), /completed$|incomplete$/.test(event));
    } else if (event.startsWith("thread.run.")) {
      const { id, status, last_error } = JSON.parse(data);
      Object.assign(reader, { runId: id, status });
      this.#on.status({ runId: id, status, message: last_error?.message });
    }
    return true;
  }

  #write(id, text, isDone) {
    this.#texts.set(id, text);
    this.#on.message({ id, role: "assistant", text, isDone });
  }

  async #refused(response) {
    const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
    const { error } = await response.json().catch(() => ({}));
    const known = { code: "refused", message: "The request was refused.", ...error };
    this.#on.error({ ...known, status: response.status, retryAfter });
    return false;
  }
}

function wordsOf(content) {
  return (content ?? []).map((part) => part.text?.value ?? "").join("");
}
