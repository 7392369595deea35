// The microphone, and the sounds that the phone makes itself: all generated, no files.

/** A microphone that the user may choose; browsers keep the choice under `key`. */
export class Microphone {
  constructor(key) {
    this.key = key;
    try {
      this.chosen = localStorage.getItem(key) || "";
    } catch {
      this.chosen = "";
    }
  }

  choose(id) {
    this.chosen = id;
    try {
      localStorage.setItem(this.key, id);
    } catch {
      // Storage is off: the choice lasts as long as the page.
    }
  }

  /** A stream of it (DOMException); of any microphone, if the chosen one is not there any more. */
  async open() {
    const open = (deviceId) => navigator.mediaDevices.getUserMedia({ audio: deviceId ? { deviceId } : true });
    if (!this.chosen) return open();
    return open({ exact: this.chosen }).catch((error) => {
      if (!["OverconstrainedError", "NotFoundError"].includes(error.name)) throw error;
      return open();
    });
  }
}

// [seconds of sound, seconds of silence, frequencies in Hz, loudness of 1]
const PATTERNS = {
  ring: [1.2, 2.3, [480, 620], 0.35], // an incoming call
  waiting: [0.2, 3.8, [425], 0.12], // an incoming call during another one
  calling: [1.5, 3, [425], 0.12], // it rings at the other side
};
const KEYS = { rows: [697, 770, 852, 941], columns: [1209, 1336, 1477], pad: "123456789*0#" };

/** Plays one pattern at a time, and the tones of keys. */
export class Sounds {
  /** Browsers allow sound after the user has done something: call this then. */
  allow() {
    this.context ??= new AudioContext();
    if (this.context.state === "suspended") this.context.resume().catch(() => {});
  }

  /** Repeat a pattern until another one, or none. */
  play(name) {
    if (name === this.playing) return;
    this.playing = name;
    this.source?.stop();
    this.source = null;
    if (!name) return;
    this.allow();
    const [on, off, frequencies, loudness] = PATTERNS[name];
    const rate = this.context.sampleRate;
    const buffer = this.context.createBuffer(1, rate * (on + off), rate);
    const samples = buffer.getChannelData(0);
    for (let i = 0; i < rate * on; i++) {
      const seconds = i / rate;
      const edge = Math.min(1, seconds * 100, (on - seconds) * 100); // without clicks
      // A ring of two frequencies warbles between them; a tone of one does not.
      const frequency = frequencies[Math.floor(seconds * 20) % frequencies.length];
      samples[i] = loudness * edge * Math.sin(2 * Math.PI * frequency * seconds);
    }
    this.source = new AudioBufferSourceNode(this.context, { buffer, loop: true });
    this.source.connect(this.context.destination);
    this.source.start();
  }

  /** The short tone of a key, for whoever presses it. */
  key(key) {
    const index = KEYS.pad.indexOf(key);
    if (index < 0) return;
    this.allow();
    const now = this.context.currentTime;
    for (const frequency of [KEYS.rows[Math.floor(index / 3)], KEYS.columns[index % 3]]) {
      const tone = new OscillatorNode(this.context, { frequency });
      const level = new GainNode(this.context, { gain: 0.05 });
      tone.connect(level).connect(this.context.destination);
      tone.start(now);
      tone.stop(now + 0.1);
    }
  }

  close() {
    this.play(null);
    this.context?.close();
    this.context = null;
  }
}
