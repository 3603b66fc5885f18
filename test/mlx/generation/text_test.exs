defmodule Mlx.Generation.TextTest do
  use ExUnit.Case, async: true
  alias Mlx.Generation.Text

  # Tokens are bytes, and what is no character yet is U+FFFD, as with tokenizers.
  defp decode(ids) do
    bytes = :binary.list_to_bin(ids)

    case :unicode.characters_to_binary(bytes) do
      text when is_binary(text) -> text
      {_error_or_incomplete, text, _rest} -> text <> "\uFFFD"
    end
  end

  defp pushed(string, stops) do
    text = Text.new(&decode/1, stops)

    {shown, text} =
      string
      |> :binary.bin_to_list()
      |> Enum.reduce_while({[], text}, fn id, {shown, text} ->
        case Text.push(text, id) do
          {certain, true, _text} -> {:halt, {[certain | shown], :stopped}}
          {certain, false, text} -> {:cont, {[certain | shown], text}}
        end
      end)

    {Enum.reverse(shown), text}
  end

  test "characters come whole" do
    assert {["a", "", "ä", "b", "", "", "", "😀", "c"], text} = pushed("aäb😀c", [])
    assert Text.rest(text) == ""
  end

  test "what may become a stop string is held back" do
    assert {["a", "", "", "bbx"], text} = pushed("abbx", ["bbc"])
    assert Text.rest(text) == ""
    assert {["a", "", ""], text} = pushed("abb", ["bbc"])
    assert Text.rest(text) == "bb"
  end

  test "text ends before the first stop string" do
    assert {["a", "", "", ""], :stopped} = pushed("abbcdef", ["bbc"])
    assert {["a", "", "b", "", ""], :stopped} = pushed("abbcdef", ["x", "bcd"])
    # It may end within what one token adds.
    text = Text.new(fn ids -> Enum.map_join(ids, &elem({"no ", "stop here"}, &1)) end, ["stop"])
    assert {"no ", false, text} = Text.push(text, 0)
    assert {"", true, _text} = Text.push(text, 1)
  end

  test "decoders that join tokens are asked for them together" do
    # As those that put a space between words, and none in front.
    decode = fn ids -> Enum.map_join(ids, " ", &"w#{&1}") end

    {shown, _} =
      Enum.map_reduce(1..5, Text.new(decode, []), fn id, text ->
        {certain, false, text} = Text.push(text, id)
        {certain, text}
      end)

    assert shown == ["w1", " w2", " w3", " w4", " w5"]
  end

  test "nothing is kept of tokens that have been shown" do
    text =
      Enum.reduce(1..1000, Text.new(fn ids -> String.duplicate("x", length(ids)) end, []), fn id,
                                                                                              text ->
        {"x", false, text} = Text.push(text, id)
        text
      end)

    assert length(text.ids) == 1
  end

  test "without a decoder there is no text" do
    text = Text.new(nil, [])
    assert {nil, false, ^text} = Text.push(text, 5)
    assert Text.rest(text) == nil
  end
end
