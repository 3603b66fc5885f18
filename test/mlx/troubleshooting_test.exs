defmodule Mlx.TroubleshootingTest do
  use ExUnit.Case, async: true
  alias Mlx.Messages

  @guide "guides/troubleshooting.md"

  # As they stand in the guide's tables.
  defp told do
    for row <- @guide |> Messages.read() |> String.split("\n"),
        [_, first | _] <- [String.split(row, "|")],
        [_, message] <- Regex.scan(~r/`([^`]+)`/, first),
        do: Messages.plain(message)
  end

  for {path, messages} <- Messages.all() do
    test "the guide has the messages of #{path}" do
      missing = unquote(messages) -- told()
      assert missing == [], "to be written into #{@guide}:\n" <> Enum.join(missing, "\n")
    end
  end

  test "every variant of the engine's error has a message" do
    source = Messages.read("native/mlx_core/src/error.rs")
    [_, body] = Regex.run(~r/pub enum Error \{\n(.*?)\n\}/s, source)
    variants = Regex.scan(~r/^    [A-Z]\w+ *[{,(]/m, body)
    messages = Regex.scan(~r/#\[error\(/, body)
    assert length(variants) == length(messages)
    assert length(variants) > 30
  end

  test "messages are found in every form in which they are written" do
    all = Messages.all()
    assert "the tensor was deallocated" in all["native/mlx_core/src/error.rs"]
    assert "there is no device …; available: …" in all["lib/mlx/device.ex"]
    assert "the stream is one of …, not of …" in all["lib/mlx/compiler/options.ex"]
    assert "the package lists could not be read" in all["bin/setup"]
  end
end
