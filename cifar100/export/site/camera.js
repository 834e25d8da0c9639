// A photo from the camera, as a File.

import { strings } from "./strings.js";

/** `dialog` holds a video, a place for an alert, and the button that takes the photo. */
export function setUpCamera(opener, dialog, onPhoto) {
  const video = dialog.querySelector("video");
  const alert = dialog.querySelector("[role=alert]");
  const shoot = dialog.querySelector("#shoot");

  let opened = 0; // times
  opener.addEventListener("click", async () => {
    const turn = ++opened;
    alert.textContent = "";
    shoot.disabled = true;
    dialog.showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (turn !== opened || !dialog.open) return stop(stream); // closed while the browser was asking
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
      shoot.focus();
    } catch {
      if (turn === opened) alert.textContent = strings.cameraRefused; // also if the page was not loaded over https
    }
  });
  dialog.addEventListener("close", () => {
    opened += 1;
    stop(video.srcObject);
    video.srcObject = null;
  });
  shoot.addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    onPhoto(new File([await canvas.convertToBlob()], strings.photo, { type: "image/png" }));
    dialog.close();
  });
}

function stop(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}
