// Shows what happens on the wall while one looks at it. Without a WebSocket the page is as it was when it was loaded.
const wall = document.getElementById("wall");
const sign = document.querySelector(".live");
let wait = 500;

function show({ id, html }) {
  if (!html) return;
  const made = document.createElement("template");
  made.innerHTML = html;
  const card = made.content.firstElementChild;
  card.classList.add("new");
  const there = wall.querySelector(`[data-id="${id}"]`);
  if (there) there.replaceWith(card);
  else wall.prepend(card);
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/live/`);
  socket.onopen = () => {
    wait = 500;
    sign.dataset.state = "on";
    sign.textContent = "live";
  };
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = () => {
    sign.dataset.state = "off";
    sign.textContent = "not live";
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 30000);
  };
}

connect();
