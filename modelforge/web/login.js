// The code stands behind the #, which a browser sends to nobody; it is traded for a cookie that no script can read.
"use strict";

const word = document.getElementById("word");
const code = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

async function signIn() {
  if (!code) {
    word.textContent = "Open the link that the server printed, or one that `modelforge token link` prints.";
    return;
  }
  const answer = await fetch("/api/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  const body = await answer.json();
  if (!answer.ok) {
    word.textContent = `${body.error}. ${body.detail}`;
    return;
  }
  word.textContent = "Signed in: this browser may use the server now.";
  const wished = localStorage.getItem("wished") ?? ""; // the view that the page could not show
  localStorage.removeItem("wished");
  location.replace(`/${wished.startsWith("#/") ? wished : ""}`);
}

signIn().catch(() => {
  word.textContent = "The server cannot be reached; open the link again.";
});
