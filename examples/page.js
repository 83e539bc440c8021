// Ask what the model makes of a text, and colour its words by their scores. All that comes from the text or the server
// is set as text, never as HTML.
"use strict";

const STRONGEST = 10; // words in the table
const UNITS = { share: "Share of the prediction", probability: "Part of the probability", score: "Score" };

const part = (name) => document.getElementById(name);

part("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = part("text").value;
  part("ask").disabled = true;
  part("answer").hidden = true;
  say("Asking …");
  try {
    show(text, await ask(text));
  } catch (error) {
    say(error.message, true);
  } finally {
    part("ask").disabled = false;
  }
});

function say(message, isError = false) {
  part("status").textContent = message;
  part("status").classList.toggle("error", isError);
}

async function ask(text) {
  const body = { text, return: ["words", "scores"] };
  const chosen = part("target").selectedIndex; // the predicted class, the whole prediction, or a class by name
  if (chosen > 1) body.target = part("target").value;
  let response;
  try {
    response = await fetch(chosen === 1 ? "predictions" : "explanations", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The server of this page does not answer.");
  }
  if (response.status === 503) throw new Error("The endpoint is busy or starting; try again in a moment.");
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error || answer.message || `The endpoint answers with status ${response.status}.`);
  }
  return answer;
}

function show(text, { label, score, scores, explanation: { words, target, unit } }) {
  offer(Object.keys(scores));
  part("words").replaceChildren(...coloured(text, words));
  part("unit").textContent = UNITS[unit] + (target === null ? "" : ` of ${target}`);
  const strongest = words.toSorted((a, b) => Math.abs(b.score) - Math.abs(a.score)).slice(0, STRONGEST);
  part("strongest").replaceChildren(...strongest.map(row));
  part("answer").hidden = false;
  say(`${label}, ${(100 * score).toFixed(1)} %`);
}

function offer(classes) {
  const targets = part("target");
  if (targets.length === 2) targets.append(...classes.map((name) => new Option(name, name)));
}

function coloured(text, words) {
  const characters = Array.from(text); // offsets count code points, JavaScript's strings UTF-16 units
  const between = (start, end) => characters.slice(start, end).join("");
  const largest = Math.max(...words.map((word) => Math.abs(word.score))) || 1;
  const pieces = [];
  let reached = 0;
  for (const word of words) {
    const span = document.createElement("span");
    span.textContent = between(word.start, word.end);
    span.title = number(word.score);
    span.className = word.score < 0 ? "against" : "for";
    span.style.setProperty("--strength", Math.abs(word.score) / largest);
    pieces.push(between(reached, word.start), span);
    reached = word.end;
  }
  return [...pieces, between(reached)];
}

function row(word) {
  const line = document.createElement("tr");
  for (const content of [word.text, number(word.score)]) {
    const cell = line.insertCell();
    cell.dir = "auto";
    cell.textContent = content;
  }
  return line;
}

function number(score) {
  return score.toFixed(3);
}
