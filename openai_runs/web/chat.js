// Page code of a chat: a message by POST, its answer read from the response's body.
// An ES module without dependencies; `openai_runs.web.SCRIPT` is its path.

/** Yield the server-sent events of a response as {event, data, id}, however it is cut. */
export async function* readEvents(response, onBytes = () => {}) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "", event = "", data = [], id = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      onBytes();
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

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 15000; // milliseconds between two attempts
const MOST_SENDS = 4; // of a message whose request breaks, or finds no server, before its answer begins
const LOST = "stream_interrupted"; // the back end has lost the run, which may go on
const OVER = new Set(["completed", "incomplete", "failed", "cancelled", "expired"]);
const UNREACHABLE = "The server cannot be reached.";
const STOPPED_LATER = "The answer is stopped as soon as the assistant can be reached.";
const BROKEN = "The connection was lost.";
const SILENCE = 10000; // milliseconds without an event; three times as long without a byte
const NO_WORD = "No word yet.", SILENT = "The server is silent.";

/**
 * One user's chat. The endpoints are `url` (POST, a message), and below it `events` (GET, the
 * answer at work), `history` (GET), `stop` (POST) and `reset` (POST).
 *
 * onMessage({id, role, text, isDone, status}): a message as it is by now; replace the one with this
 * id. `status` is how its run ended where it is not whole, as in `history`.
 * onStatus({runId, status, message}): of the run that answers; `message` says why it failed.
 * onError({code, message, status, retryAfter}): something cannot be done; `message` says what to do.
 * onConnection({isLost, message}): the connection was lost, and is tried again; or it is back.
 * onSilence({isSilent, message}): no event came for `silence` milliseconds; or one has. It says
 * whether the connection still has signs of life.
 */
export class Chat {
  #url; #headers; #on; #readers = new Set(); #lost = new Set(); #texts = new Map();
  #silence; #timer; #receivedAt = 0; #isSilent = false; #said; #isWaiting = false;
  #isUnseen = false; // whether a message may have been answered that no connection was there for

  constructor({
    url = "/chat", headers = {}, silence = SILENCE,
    onMessage, onStatus = () => {}, onError = () => {}, onConnection = () => {},
    onSilence = () => {},
  }) {
    this.#url = url;
    this.#headers = headers;
    this.#silence = silence;
    this.#on = { message: onMessage, status: onStatus, error: onError, connection: onConnection };
    this.#on.silence = onSilence;
  }

  /** Send a message, and return once its answer has ended; true where it was accepted. */
  async send(text) {
    if (!text.trim()) {
      this.#on.error({ code: "empty_message", message: "The message is empty: write something." });
      return false;
    }
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

  /**
   * Cancel the answer that is shown at work; a message that waits is answered next. `stopping` is
   * its status until the run has ended, which may be otherwise than by the stop.
   */
  async stop() {
    const reader = [...this.#readers].find(isAtWork), runId = reader?.runId ?? "";
    if (reader) this.#on.status({ runId, status: "stopping" });
    // The request may have to wait for one of the browser's connections: it says which run is meant.
    const query = runId ? `?run_id=${encodeURIComponent(runId)}` : "";
    const response = await this.#fetch(`/stop${query}`, { method: "POST" }).catch(() => null);
    if (!response) {
      const message = `${UNREACHABLE} The answer is not stopped: try again.`;
      return this.#on.error({ code: "unreachable", message });
    }
    if (response.ok) return; // the run itself says how it ends
    const error = await errorOf(response);
    if (!isDoneLater(error)) return this.#on.error(error);
    if (reader && !isAtWork(reader)) return; // it has ended meanwhile
    this.#on.status({ runId, status: "stopping", message: STOPPED_LATER });
  }

  /**
   * Return {messages, before, waiting}: the newest messages, or those before a place. As long as
   * the server cannot say, it is asked again; empty where it refuses, and after `close`.
   */
  async history(before) {
    const query = before ? `?before=${encodeURIComponent(before)}` : "";
    const reader = this.#open();
    try {
      while (!reader.signal.aborted) {
        let problem = UNREACHABLE;
        try {
          const response = await this.#fetch(`/history${query}`, { signal: reader.signal });
          if (isOf(response, "application/json")) return await response.json();
          const error = await errorOf(response);
          if (!isPassing(response)) {
            this.#on.error(error);
            break;
          }
          problem = error.message;
        } catch (error) {
          if (!isOfConnection(error, reader)) throw error;
        }
        await this.#pause(reader, problem);
      }
      return { messages: [], before: null, waiting: [] };
    } finally {
      this.#end(reader);
    }
  }

  /** Begin a new conversation, and leave the old one; true where that is done. */
  async reset() {
    const response = await this.#fetch("/reset", { method: "POST" }).catch(() => null);
    if (!response) {
      const message = `${UNREACHABLE} No new conversation is begun: try again.`;
      return this.#fail({ code: "unreachable", message });
    }
    const error = response.ok ? null : await errorOf(response);
    return isDoneLater(error) || this.#fail(error);
  }

  /** Stop reading; the answers go on. */
  close() {
    for (const reader of this.#readers) reader.controller.abort();
  }

  #fetch(path, { headers, ...options } = {}) {
    return fetch(this.#url + path, { ...options, headers: { ...this.#headers, ...headers } });
  }

  #ask(signal, reader) {
    const { runId, lastId } = reader;
    reader.asked++;
    const headers = lastId ? { "Last-Event-ID": lastId } : {};
    const query = runId ? `?run_id=${encodeURIComponent(runId)}` : "";
    return this.#fetch(`/events${query}`, { headers, signal });
  }

  /** Read an answer to its end, over connections that break. */
  async #read(request, untilIdle = false) {
    const reader = Object.assign(this.#open(), { untilIdle });
    let isAccepted = untilIdle, hasBegun = false, failures = 0;
    try {
      for (;;) {
        let problem = "";
        try {
          const response = await request(reader.signal, reader);
          if (response.status === 204) { // nothing is being answered any more
            const isUnseen = this.#isUnseen || (!untilIdle && !hasBegun);
            this.#isUnseen = false;
            if (isUnseen) await this.#showAnswered();
            return true;
          }
          if (!isOf(response, "text/event-stream")) {
            const error = await errorOf(response);
            if (!isPassing(response)) {
              this.#fail(error);
              return isAccepted && !untilIdle; // a message whose answer cannot be read was sent
            }
            if (!isAccepted && !(isOfOutage(error) && ++failures < MOST_SENDS)) {
              const when = error.retryAfter ? `in ${error.retryAfter} s` : "later";
              return this.#fail({ ...error, message: `${error.message} Send it again ${when}.` });
            }
            problem = error.message;
          } else {
            if (!isAccepted) reader.isSent = isAccepted = true;
            this.#regain(reader);
            this.#sayWaiting();
            for await (const event of readEvents(response, () => { this.#receivedAt = Date.now(); })) {
              reader.pause = FIRST_PAUSE, hasBegun = true;
              problem = event.event === "done" ? "" : BROKEN;
              if (!this.#showed(event, reader)) return true;
              if (reader.other) break;
            }
          }
        } catch (error) {
          if (reader.signal.aborted) return true;
          if (!isOfConnection(error, reader)) throw error;
          if (!isAccepted && ++failures === MOST_SENDS) {
            const advice = "Once it can, reload the page to see whether the message is there.";
            return this.#fail({ code: "not_sent", message: `${UNREACHABLE} ${advice}` });
          }
          problem = hasBegun ? BROKEN : UNREACHABLE;
        }
        if (reader.other) { // the answer to a message that was sent here; what follows is asked for
          await reader.other.ended;
          Object.assign(reader, { runId: "", lastId: "", isDone: false, other: null }), problem = "";
        }
        if (reader.signal.aborted || (reader.isDone && !reader.untilIdle)) return true;
        if (reader.isDone) Object.assign(reader, { runId: "", lastId: "", isDone: false });
        else if (isAccepted && !reader.runId && !reader.untilIdle) { // which answer it is, nobody knows
          this.#isUnseen = true; // it may come and go between two connections
          if (!problem && await this.#isFollowed(reader)) return true;
          reader.untilIdle = true;
        }
        await this.#pause(reader, problem);
        if (reader.signal.aborted) return true;
        if (isAccepted) request = (signal, reader) => this.#ask(signal, reader);
      }
    } finally {
      this.#end(reader);
    }
  }

  #open() {
    const controller = new AbortController();
    const place = { runId: "", lastId: "", status: "", messageId: "", isDone: false };
    const reader = { controller, signal: controller.signal, pause: FIRST_PAUSE, ...place };
    Object.assign(reader, { other: null, asked: 0, isSent: false });
    reader.ended = new Promise((end) => { reader.end = end; });
    this.#readers.add(reader);
    if (this.#readers.size === 1) this.#listen();
    return reader;
  }

  #end(reader) {
    this.#readers.delete(reader);
    if (!this.#readers.size) this.#listen();
    reader.end();
    this.#regain(reader);
    if (this.#readers.size || !this.#isWaiting) return;
    this.#isWaiting = false; // another reader has shown the answer
    if (this.#said) this.#on.status(this.#said);
  }

  /** Say that a message which was sent has no run yet, unless another run is at work. */
  #sayWaiting() {
    const readers = [...this.#readers];
    if (readers.some(isAtWork) || !readers.some(({ isSent }) => isSent)) return;
    this.#isWaiting = true;
    this.#on.status({ runId: "", status: "waiting" });
  }

  /** Wait before the next attempt; a problem is why the connection is lost. */
  async #pause(reader, problem) {
    if (reader.signal.aborted) return;
    if (problem) this.#lose(reader, problem);
    const { pause, signal } = reader;
    reader.pause = Math.min(pause * 2, LONGEST_PAUSE);
    await new Promise((resume) => {
      setTimeout(resume, pause);
      signal.addEventListener("abort", resume, { once: true });
    });
  }

  /** Begin to wait for the next event, and say so where none comes. */
  #listen() {
    clearTimeout(this.#timer);
    if (this.#isSilent) this.#on.silence({ isSilent: this.#isSilent = false, message: "" });
    if (!this.#readers.size) return;
    this.#receivedAt = Date.now();
    const say = () => {
      if (this.#lost.size) return this.#listen(); // that it is lost has been said
      // Between words the back end sends comments, so that a model that thinks is no silence.
      const message = Date.now() - this.#receivedAt < 3 * this.#silence ? NO_WORD : SILENT;
      this.#on.silence({ isSilent: this.#isSilent = true, message });
      this.#timer = setTimeout(say, this.#silence);
    };
    this.#timer = setTimeout(say, this.#silence);
  }

  #lose(reader, message) {
    this.#listen();
    this.#lost.add(reader);
    this.#on.connection({ isLost: true, message });
  }

  /** Say that the connection is back, once it is for all that is read. */
  #regain(reader) {
    if (this.#lost.delete(reader) && !this.#lost.size) {
      this.#on.connection({ isLost: false, message: "" });
    }
  }

  #fail(error) {
    this.#on.error(error);
    return false;
  }

  /** Show what was answered while nothing of it could be read. */
  async #showAnswered() {
    const { messages } = await this.history();
    for (const { id, role, text, status } of messages) {
      if (role === "assistant" && (text || status)) this.#write(id, text, true, status);
    }
  }

  /** Show an event; return whether there may be more. What the page throws is no lost connection. */
  #showed(event, reader) {
    this.#listen();
    try {
      return this.#show(event, reader);
    } catch (error) {
      throw new Error("An event of the chat could not be shown.", { cause: error });
    }
  }

  #show({ event, data, id }, reader) {
    if (event === "reconnecting") { // the back end and its server; this connection is kept
      this.#lose(reader, BROKEN);
      return true;
    }
    if (event === "error") {
      const error = JSON.parse(data);
      if (error.code === LOST && reader.runId) return true; // follows the run
      return this.#fail(error);
    }
    this.#regain(reader);
    const runId = event.startsWith("thread.run.") ? JSON.parse(data).id : reader.runId;
    if ((reader.other = this.#otherReaderOf(runId, reader))) return true;
    if (id) reader.lastId = id;
    if (event === "done") {
      // A run that waits for tools goes on, and a run that has ended is over.
      reader.isDone = reader.status === "" || OVER.has(reader.status);
    } else if (event === "thread.message.delta") {
      const { id, delta } = JSON.parse(data);
      this.#write(reader.messageId = id, (this.#texts.get(id) ?? "") + wordsOf(delta.content), false);
    } else if (event.startsWith("thread.message.")) {
      // These have the text as it is by then, and so take the place of all that came before.
      const { id, role, content } = JSON.parse(data);
      if (role !== "assistant") return true;
      this.#write(reader.messageId = id, wordsOf(content), /completed$|incomplete$/.test(event));
    } else if (event.startsWith("thread.run.")) {
      const { id, status, last_error } = JSON.parse(data);
      if (id !== reader.runId) reader.messageId = id; // of an answer without a word, as in `history`
      Object.assign(reader, { runId: id, status });
      reader.isSent = false;
      this.#on.status(this.#said = { runId: id, status, message: last_error?.message });
      this.#isWaiting = false;
      if (OVER.has(status)) this.#sayWaiting();
      if (OVER.has(status) && status !== "completed") {
        this.#write(reader.messageId, this.#texts.get(reader.messageId) ?? "", true, status);
      }
    }
    return true;
  }

  /** Return who else reads this run, where this one leaves it to them: a delta is added once. */
  #otherReaderOf(runId, reader) {
    if (!runId || !reader.untilIdle) return null;
    const isFirst = (other) => !other.untilIdle || !reader.runId;
    const others = [...this.#readers].filter((other) => other !== reader);
    return others.find((other) => other.runId === runId && isFirst(other)) ?? null;
  }

  /**
   * Return whether another reader has shown all that was answered since, once nothing more is: each
   * would hold a connection, of which a browser has six.
   */
  async #isFollowed(reader) {
    for (;;) {
      const other = [...this.#readers].find((one) => one !== reader && one.untilIdle);
      if (!other || reader.signal.aborted) return reader.signal.aborted;
      const { asked } = other;
      await other.ended;
      if (other.asked > asked) return true;
    }
  }

  #write(id, text, isDone, status) {
    this.#texts.set(id, text);
    this.#on.message({ id, role: "assistant", text, isDone, status });
  }
}

/** Return whether a reader shows a run that has not ended. */
function isAtWork({ runId, status }) {
  return runId && !OVER.has(status);
}

/** Return whether it is an answer of this type, and not a page of a proxy or for signing in. */
function isOf(response, type) {
  return response.ok && response.headers.get("Content-Type")?.startsWith(type);
}

/** Return whether the same request may succeed later. */
function isPassing(response) {
  return response.status >= 500 || response.status === 429;
}

/** Return whether something on the way was down: the back end's server, or the back end itself. */
function isOfOutage({ code, status }) {
  return status === 503 || (code === "refused" && status >= 500); // refused: by a proxy, without a code
}

/** Return whether a stop or a reset needs no other attempt: the back end keeps it for its server. */
function isDoneLater(error) {
  return !error || error.code.startsWith("upstream_");
}

/** Return whether `fetch` or a body failed, and no code. */
function isOfConnection(error, reader) {
  return error instanceof TypeError || reader.signal.aborted;
}

/** Return {code, message, status, retryAfter} of a refusal, whoever has sent it. */
async function errorOf(response) {
  const { status } = response;
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  const { error, detail } = await response.json().catch(() => null) ?? {};
  const message = error?.message || detailsOf(detail) || adviceFor(status);
  return { code: error?.code ?? "refused", message, status, retryAfter };
}

/** Return the text of FastAPI's `detail`: a sentence, or a list of what is wrong. */
function detailsOf(detail) {
  if (!Array.isArray(detail)) return typeof detail === "string" ? detail : "";
  return detail.map(({ loc, msg }) => [loc?.at(-1), msg].filter(Boolean).join(": ")).join("; ");
}

function adviceFor(status) {
  if (status < 300 || status === 401 || status === 403) {
    return "The server does not know who you are: reload the page, or sign in again.";
  }
  if (status >= 500) return `The server cannot answer at present (${status}).`;
  return `The server rejects the request (${status}): reload the page and try again.`;
}

function wordsOf(content) {
  return (content ?? []).map((part) => part.text?.value ?? "").join("");
}
