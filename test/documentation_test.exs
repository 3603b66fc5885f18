defmodule Mlx.DocumentationTest do
  @moduledoc """
  What is public is documented: with a specification, and examples that a test runs.
  """

  use ExUnit.Case, async: true

  # A sentence of text above the options of a test is not a part of the library.
  @library Path.wildcard("lib/**/*.ex") |> Enum.map(&Path.expand/1)

  {:ok, modules} = :application.get_key(:mlx, :modules)

  public =
    for module <- modules,
        to_string(module.module_info(:compile)[:source]) in @library,
        {:docs_v1, _, :elixir, _, %{"en" => text}, _, docs} <- [Code.fetch_docs(module)],
        do: {module, text, docs}

  test "there are public modules" do
    assert length(unquote(for {module, _, _} <- public, do: module)) > 10
  end

  tests = Path.wildcard("test/**/*_test.exs") |> Enum.map_join(&File.read!/1)

  for {module, text, docs} <- public do
    functions =
      for {{kind, name, arity}, _, _, doc, meta} <- docs,
          kind in [:function, :macro],
          doc != :hidden,
          not is_map_key(meta, :delegate_to) or is_map(doc),
          do: {name, arity, if(is_map(doc), do: doc["en"])}

    if not String.starts_with?(inspect(module), "Mix.Tasks.") do
      test "#{inspect(module)}: functions have documentation, examples and specifications" do
        {:ok, specs} = Code.Typespec.fetch_specs(unquote(module))
        specs = for {{name, _arity}, _} <- specs, do: name

        for {name, arity, doc} <- unquote(Macro.escape(functions)), not callback?(name) do
          function = "#{name}/#{arity}"
          assert doc, "#{function} is not documented"
          assert doc =~ "iex>", "#{function} has no example"
          assert name in specs, "#{function} has no specification"
        end
      end

      if text =~ "iex>" or Enum.any?(functions, fn {_, _, doc} -> doc && doc =~ "iex>" end) do
        test "#{inspect(module)}: a test runs the examples" do
          assert unquote(
                   # A module that may be missing is named in a list.
                   tests =~ ~r/doctest\(?\s*#{Regex.escape(inspect(module))}\b(?!\.)/ or
                     tests =~ ~r/<- \[#{Regex.escape(inspect(module))}\].*doctest\(module\)/
                 )
        end
      end
    end
  end

  test "ARCHITECTURE.md names each file of the engine" do
    text = File.read!("ARCHITECTURE.md")

    for path <- Path.wildcard("native/mlx_core/src/*.rs"),
        name = Path.basename(path),
        name != "lib.rs",
        do: assert(text =~ "`#{name}`", "#{name} is missing")
  end

  # An exception's functions are documented by what an exception is.
  defp callback?(name), do: name in [:exception, :message, :blame]
end
