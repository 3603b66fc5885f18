defmodule Mlx.DocExamples do
  @moduledoc """
  The examples in Nx's documentation, taken from it and run on `Mlx.Backend`.

  Where `ExUnit.DocTest` asks for the printed text, this can allow for digits.
  """

  import ExUnit.Assertions
  alias Mlx.TestDevice
  alias Nx.Tensor, as: T

  # The sign between the parts of a complex number belongs to the second.
  @number ~r/[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?/

  # Some examples import them in a step before.
  @sigils "import Nx, only: :sigils, warn: false\n"

  @doc """
  The modules of Nx whose documentation has examples.
  """
  def modules do
    {:ok, modules} = :application.get_key(:nx, :modules)
    Enum.filter(modules, &(examples(&1) != []))
  end

  @doc """
  The examples of a module, as maps.

  Each has the `:function` whose documentation it is in, as `{name, arity}` or
  `:moduledoc`, its `:number` there, and `:steps`, pairs of code and what it prints, or
  `nil`.
  """
  def examples(module) do
    for {function, doc} <- docs(module), example <- in_text(doc) do
      Map.merge(example, %{module: module, function: function})
    end
  end

  @doc """
  The examples in a text, as maps of the `:number` and the `:steps`.
  """
  def in_text(text) do
    for {steps, number} <- text |> parse() |> Enum.with_index(1) do
      %{number: number, steps: steps}
    end
  end

  @doc """
  Code in the documentation of a module that is not an example, block by block.
  """
  def code(module) do
    {:moduledoc, doc} = module |> docs() |> List.keyfind(:moduledoc, 0)

    for [block] <- Regex.scan(~r/(?:^    .*\n|\n)+/m, doc),
        code = String.trim(block),
        code != "" and not String.starts_with?(code, "iex>"),
        do: code
  end

  defp docs(module) do
    case Code.fetch_docs(module) do
      {:docs_v1, _, _, _, moduledoc, _, functions} ->
        [
          {:moduledoc, text(moduledoc)}
          | for({id, _, _, doc, _} <- functions, do: {id(id), text(doc)})
        ]

      {:error, _} ->
        []
    end
  end

  defp id({_kind, name, arity}), do: {name, arity}

  defp text(%{"en" => text}), do: text
  defp text(_none), do: ""

  # An empty line ends an example.
  defp parse(doc) do
    doc
    |> String.split("\n")
    |> Enum.map(&String.trim_trailing/1)
    |> Enum.chunk_by(&(&1 == ""))
    |> Enum.map(fn lines -> lines |> Enum.reduce([], &line/2) |> Enum.reverse() end)
    |> Enum.reject(&(&1 == []))
  end

  defp line(line, steps) do
    case {String.trim_leading(line), steps} do
      {"iex> " <> code, steps} -> [{code, nil} | steps]
      {"...>" <> more, [{code, nil} | steps]} -> [{code <> "\n" <> more, nil} | steps]
      {_text, []} -> []
      {text, [{code, nil} | steps]} -> [{code, text} | steps]
      {text, [{code, printed} | steps]} -> [{code, printed <> "\n" <> text} | steps]
    end
  end

  @doc """
  Whether an example prints floats.
  """
  def floats?(%{steps: steps}),
    do: Enum.any?(steps, fn {_, printed} -> "#{printed}" =~ ~r/\d\.\d/ end)

  @doc """
  Whether an example computes with f64, by its text. Types alone are no tensors, and what Nx
  refuses does not get to a device.
  """
  def f64?(%{module: Nx.Type}), do: false

  def f64?(%{steps: steps}) do
    Enum.any?(steps, fn {code, printed} ->
      "#{code} #{printed}" =~ ~r/\bf64\b|\{:f, 64\}/ and
        not ("#{printed}" =~ ~r/\A\*\* \((?!Mlx\.)/)
    end)
  end

  @doc """
  Runs an example and asserts that it prints what the documentation says.

  ## Options

    * `:ulps` - how far the printed floats may be apart, in units of the last place;
      `0` by default
    * `:scale` - the least magnitude those units are taken of
    * `:through` - functions of a printed tensor and the example's variables, by the code
      that prints that tensor. Instead of the tensors their results are compared
    * `:instead` - a function that is given the last step as a function, and asserts
      what happens where the documentation has something else
    * `:refused` - that the example needs f64, which the device lacks, and so is refused
    * `:run` - what runs the code of a step in the place of `run/2`
    * `:backends` - those that tensors may be of, by default `[Mlx.Backend]`

  """
  def check(%{steps: steps}, opts \\ []) do
    if opts[:refused] do
      TestDevice.assert_f64_refused(fn ->
        Enum.reduce(steps, [], fn {code, _}, variables ->
          elem(runner(opts).(variables, code), 1)
        end)
      end)
    else
      check_steps(steps, opts)
    end
  end

  defp check_steps(steps, opts) do
    last = length(steps) - 1

    steps
    |> Enum.with_index()
    |> Enum.reduce([], fn {{code, printed}, at}, variables ->
      if at == last and opts[:instead] do
        opts[:instead].(fn -> variables |> run(code) |> elem(0) end)
        variables
      else
        step(code, printed, variables, opts)
      end
    end)
  end

  defp runner(opts), do: Keyword.get(opts, :run, &run/2)
  defp backends(opts), do: Keyword.get(opts, :backends, [Mlx.Backend])

  @doc """
  Runs code with variables. Returns its value and the variables after it.
  """
  def run(variables, code), do: Code.eval_string(@sigils <> code, variables)

  defp step(code, "** (" <> _ = printed, variables, opts) do
    [_, name, message] = Regex.run(~r/\A\*\* \(([\w.]+)\) (.*)\z/s, printed)
    error = catch_error(runner(opts).(variables, code))
    assert inspect(error.__struct__) == name
    assert squeeze(Exception.message(error)) == squeeze(message)
    variables
  end

  defp step(code, printed, variables, opts) do
    {value, variables} = runner(opts).(variables, code)
    if is_struct(value, T), do: assert(value.data.__struct__ in backends(opts))

    case {printed, opts[:through][code]} do
      {nil, _} -> :ok
      {"#" <> _, nil} -> assert_prints(value, printed, opts)
      {"#" <> _, fun} -> assert_through(value, printed, &fun.(&1, variables), opts)
      {expected, nil} -> assert_prints(value, inspect(elem(run(variables, expected), 0)), opts)
    end

    variables
  end

  @doc """
  Asserts that a value prints as `printed`, but for the digits that `check/2` allows.
  """
  def assert_prints(value, printed, opts \\ []) do
    got = split(inspect(value))
    expected = split(printed)
    epsilon = epsilon(printed)
    close? = &close?(&1, &2, epsilon, opts)

    assert length(got) == length(expected) and Enum.all?(Enum.zip_with(got, expected, close?)),
           "expected #{printed}\ngot #{inspect(value)}"
  end

  defp assert_through(%T{} = value, printed, fun, opts) do
    floats = for token <- split(printed), {:ok, float} <- [float(token)], do: float
    expected = floats |> Nx.tensor(type: value.type) |> Nx.reshape(value)
    assert_prints(fun.(value), inspect(fun.(expected)), opts)
  end

  # The numbers and what is between them.
  defp split(text), do: Regex.split(@number, squeeze(text), include_captures: true)

  @doc """
  A text without whitespace, as that depends on how long the lines are, but for a space between
  words and numbers.
  """
  def squeeze(text) do
    Regex.replace(~r/(?<=(\w))?\s+(?=([\w+-]))?/, text, fn _, before, next ->
      if before != "" and next != "", do: " ", else: ""
    end)
  end

  defp close?(same, same, _epsilon, _opts), do: true

  defp close?(a, b, epsilon, opts) do
    with {:ok, a} <- float(a), {:ok, b} <- float(b) do
      ulps = TestDevice.ulps(Keyword.get(opts, :ulps, 0))
      abs(a - b) <= ulps * epsilon * max(abs(b), opts[:scale] || 0.0)
    else
      _ -> false
    end
  end

  # Integers are sizes and types, too.
  defp float(token) do
    case String.contains?(token, ".") and Float.parse(token) do
      {float, ""} -> {:ok, float}
      _ -> :error
    end
  end

  defp epsilon(printed) do
    cond do
      printed =~ ~r/\bf64\b/ -> 2.0 ** -52
      TestDevice.exact?() -> 2.0 ** -23
      printed =~ ~r/\bbf16\b/ -> 2.0 ** -7
      printed =~ ~r/\bf16\b/ -> 2.0 ** -10
      true -> 2.0 ** -23
    end
  end
end
