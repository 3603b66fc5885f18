defmodule WordPiece do
  @moduledoc """
  The tokenizer of BERT and its family, from the `vocab.txt` of the folder of an uncased model.

  In servings of Bumblebee it takes the place of Bumblebee's, so that they need no NIF but that of Mlx.
  """

  @enforce_keys [:ids]
  defstruct [:ids, length: nil, return_token_type_ids: true]

  # Longer words are unknown.
  @longest 100

  @doc """
  The tokenizer of a folder.
  """
  def load(folder) do
    folder |> Path.join("vocab.txt") |> File.read!() |> String.split("\n", trim: true) |> new()
  end

  @doc """
  The tokenizer of tokens, `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]` among them. `##` marks those inside of words.
  """
  def new(tokens), do: %__MODULE__{ids: tokens |> Enum.with_index() |> Map.new()}

  @doc """
  The tokens of a text, no more than `longest`, with those that mark its start and its end.
  """
  def encode(%__MODULE__{ids: ids}, text, longest \\ 512) do
    tokens = for word <- words(text), token <- pieces(word, ids), do: token
    [ids["[CLS]"]] ++ Enum.take(tokens, longest - 2) ++ [ids["[SEP]"]]
  end

  # In lower case and without accents. Punctuation stands for itself, and so do the signs of Chinese.
  defp words(text) do
    plain = text |> String.downcase() |> String.normalize(:nfd) |> String.replace(~r/\p{Mn}/u, "")
    signs = ~S"\p{P}\p{Han}$+<=>^`|~"
    for [word] <- Regex.scan(~r/[#{signs}]|[^\s#{signs}]+/u, plain), do: word
  end

  defp pieces(word, ids) do
    letters = String.codepoints(word)

    case length(letters) <= @longest && rest(letters, "", ids) do
      tokens when is_list(tokens) -> tokens
      _unknown -> [ids["[UNK]"]]
    end
  end

  # The longest token that a word begins with, and then those of what is left.
  defp rest([], _prefix, _ids), do: []

  defp rest(letters, prefix, ids) do
    longest =
      Enum.find_value(length(letters)..1//-1, fn size ->
        {head, tail} = Enum.split(letters, size)
        if id = ids[prefix <> Enum.join(head)], do: {id, tail}
      end)

    with {id, tail} <- longest,
         tokens when is_list(tokens) <- rest(tail, "##", ids),
         do: [id | tokens]
  end

  ## What Bumblebee asks of a tokenizer

  def config(tokenizer, opts), do: struct!(tokenizer, opts)

  @doc """
  The inputs of a model for texts: filled up to the shortest of the lengths that holds all of them.
  """
  def apply(%__MODULE__{length: lengths} = tokenizer, texts) do
    lengths = List.wrap(lengths)
    rows = for text <- texts, do: encode(tokenizer, text, Enum.max(lengths, fn -> 512 end))
    most = rows |> Enum.map(&length/1) |> Enum.max()
    size = lengths |> Enum.sort() |> Enum.find(most, &(&1 >= most))
    filled = fn row -> row ++ List.duplicate(0, size - length(row)) end
    tensor = fn rows -> rows |> Enum.map(filled) |> Nx.tensor(type: :u32) end
    ones = for row <- rows, do: Enum.map(row, fn _ -> 1 end)
    inputs = %{"input_ids" => tensor.(rows), "attention_mask" => tensor.(ones)}

    if tokenizer.return_token_type_ids,
      do: Map.put(inputs, "token_type_ids", Nx.multiply(inputs["input_ids"], 0)),
      else: inputs
  end
end
