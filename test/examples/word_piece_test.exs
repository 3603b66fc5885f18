Code.require_file("examples/word_piece.exs")

defmodule Mlx.Examples.WordPieceTest do
  use ExUnit.Case, async: true

  defp tokenizer(tokens, opts \\ []) do
    WordPiece.config(WordPiece.new(["[PAD]", "[UNK]", "[CLS]", "[SEP]"] ++ tokens), opts)
  end

  test "a word is the longest tokens that it begins with, or unknown" do
    words = tokenizer(["un", "##able", "##ab", "##le", "unab", ",", "日"])
    assert WordPiece.encode(words, "Unable") == [2, 8, 7, 3]
    assert WordPiece.encode(words, "unableab ünàble") == [2, 8, 7, 6, 8, 7, 3]
    assert WordPiece.encode(words, "un, other") == [2, 4, 9, 1, 3]
    assert WordPiece.encode(words, "un日un") == [2, 4, 10, 4, 3]
    assert WordPiece.encode(words, String.duplicate("un", 51)) == [2, 1, 3]
    assert WordPiece.encode(words, "un un un", 4) == [2, 4, 4, 3]
    assert WordPiece.encode(words, " \n") == [2, 3]
  end

  test "inputs have the shortest length that holds all texts" do
    words = tokenizer(["a"], length: [8, 4], return_token_type_ids: false)
    assert %{"input_ids" => ids, "attention_mask" => mask} = WordPiece.apply(words, ["a", "a a"])
    assert Nx.to_list(ids) == [[2, 4, 3, 0], [2, 4, 4, 3]]
    assert Nx.to_list(mask) == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert Nx.shape(WordPiece.apply(words, ["a a a"])["input_ids"]) == {1, 8}
    assert Nx.shape(WordPiece.apply(words, [String.duplicate("a ", 20)])["input_ids"]) == {1, 8}

    words = WordPiece.config(words, length: nil, return_token_type_ids: true)
    assert %{"token_type_ids" => types} = WordPiece.apply(words, ["a a a"])
    assert Nx.to_list(types) == [[0, 0, 0, 0, 0]]
  end

  @tag :minilm
  test "real sentences have the tokens that transformers gives" do
    words = WordPiece.load(System.fetch_env!("MLX_MINILM"))
    rows = "data/sentences.json.gz" |> File.read!() |> :zlib.gunzip() |> JSON.decode!()
    assert length(rows) == 20
    for row <- rows, do: assert(WordPiece.encode(words, row["text"]) == row["tokens"])
  end
end
