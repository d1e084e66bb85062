// Loads the page; again where part of it did not come, or came from a machine that has another version by now.

import("./main.js").catch(() => {
  document.getElementById("says").textContent = "The page did not load; trying again.";
  setTimeout(() => location.reload(), 3000);
});
