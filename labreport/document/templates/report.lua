-- Pandoc filter between the notebooks' HTML and every document: it makes links of what the text names, aligns columns of
-- numbers to the right, shares a page's width among the columns of wide tables, says under each figure and table where it
-- is from, numbers both by chapter, and gives each format what it needs: alternative texts of formulas and pictures (PDF),
-- boxes that scroll (web page), floats over two columns (TeX).
local stringify, utf8_length = pandoc.utils.stringify, pandoc.text.len

-- Widths in characters.
local WIDE = 106 -- a row that still fits the text's width at a readable size, each column counted with its gap
local PAGE, PAGE_AND_MARGINS = 116, 148 -- in the sizes that the PDF's template gives to wide tables
local MANY = 6 -- columns; with more, the template lets a table reach into the margins
local GAP = 3
local SHORT = 22 -- a column whose cells are no longer keeps each of them in one line
local TEX_COLUMN = 58 -- one column of the TeX source's two
local TEX_LINES = 57 -- of a table on one page of the TeX source

local function is_number(text)
  return text:gsub("−", "-"):match("^[-+≤<≥>~%[(]*%s?%d") ~= nil
end

local function longest_word(text)
  local longest = 0
  for word in text:gmatch("%S+") do longest = math.max(longest, utf8_length(word)) end
  return longest
end

-- Per column: whether it holds numbers, its longest cell, and the longest word in it or its heading, in characters.
local function measure(tbl)
  local columns = {}
  for i in ipairs(tbl.colspecs) do columns[i] = { numbers = 0, words = 0, cell = 0, word = 0 } end
  for _, row in ipairs(tbl.head.rows) do
    for i, cell in ipairs(row.cells) do columns[i].word = longest_word(stringify(cell.contents)) end
  end
  for _, body in ipairs(tbl.bodies) do
    for _, row in ipairs(body.body) do
      for i, cell in ipairs(row.cells) do
        local text, column = stringify(cell.contents), columns[i]
        local kind = is_number(text) and "numbers" or text:match("%a") and "words"
        if kind then column[kind] = column[kind] + 1 end
        column.cell = math.max(column.cell, utf8_length(text))
        column.word = math.max(column.word, longest_word(text))
      end
    end
  end
  return columns
end

-- Each column's share of the width: short cells stay whole, longer ones get what is left by what they lack.
local function shares(columns)
  local page = #columns > MANY and PAGE_AND_MARGINS or PAGE
  local needed, lacking = 0, 0
  for _, column in ipairs(columns) do
    column.least = GAP + math.max(column.cell <= SHORT and column.cell or 0, column.word)
    column.lack = math.max(column.cell + GAP - column.least, 0)
    needed, lacking = needed + column.least, lacking + column.lack
  end
  local spare = math.max(page - needed, 0)
  local given = math.min(spare, lacking)
  local widths = {}
  for i, column in ipairs(columns) do
    local extra = lacking > 0 and given * column.lack / lacking or 0
    widths[i] = (column.least + extra + (spare - given) / #columns) / (needed + spare)
  end
  return widths
end

local function body_rows(tbl)
  local rows = {}
  for _, body in ipairs(tbl.bodies) do for _, row in ipairs(body.body) do rows[#rows + 1] = row end end
  return rows
end

local function lay_out(tbl)
  local columns, width = measure(tbl), 0
  for _, column in ipairs(columns) do width = width + math.max(column.cell, column.word) + GAP end
  for _, row in ipairs(body_rows(tbl)) do row.identifier = "" end -- an erratum's row stands in two tables
  local widths = FORMAT ~= "html5" and width > WIDE and shares(columns) or {}
  for i, column in ipairs(columns) do
    local align = tbl.colspecs[i][1]
    if align == pandoc.AlignDefault then
      align = column.numbers > 3 * column.words and pandoc.AlignRight or pandoc.AlignLeft
    end
    tbl.colspecs[i] = { align, widths[i] }
  end
  tbl.attributes.width = tostring(width)
  return tbl
end

local function lines_of(row, tbl)
  local most = 1
  for i, cell in ipairs(row.cells) do
    local share = tbl.colspecs[i] and tbl.colspecs[i][2]
    if share then most = math.max(most, math.ceil(utf8_length(stringify(cell.contents)) / (share * PAGE * 1.1))) end
  end
  return most
end

-- Names that become links --------------------------------------------------------------------------------------------

-- The name "[4]" in front of a reference is what mentions of it, and links to the same page, lead to.
local function note_references(list, targets)
  for _, item in ipairs(list.content) do
    local number = stringify(item[1]):match("^%[(%d+)%]$")
    if number then
      targets["[" .. number .. "]"] = "#reference-" .. number
      pandoc.walk_block(pandoc.Div(item[2][1]), { Link = function(link) targets[link.target] = "#reference-" .. number end })
      item[1] = { pandoc.Span(item[1], { id = "reference-" .. number }) }
    end
  end
end

-- Errata are linked to their rows in the full list; "Table 1" is the lab report's, as measured; chapters are counted, and
-- found by the number in their notebook's name as well.
local function targets_of_names(document)
  local targets, chapter = {}, 0
  for _, block in ipairs(document.blocks) do
    if block.t == "Header" and block.level == 1 and not block.classes:includes("unnumbered") then
      chapter = chapter + 1
      targets["chapter " .. chapter] = "#" .. block.identifier
    elseif block.t == "DefinitionList" then
      note_references(block, targets)
    elseif block.t == "Table" and block.identifier == "tbl:table1" then
      targets["table 1"] = "#tbl:table1"
    elseif block.t == "Table" and block.identifier == "tbl:errata" then
      for _, row in ipairs(body_rows(block)) do
        local name = stringify(row.cells[1].contents)
        if name:match("^E%d+$") then
          targets[name] = "#erratum-" .. name
          local anchor = pandoc.Span({ pandoc.Str(name) }, { id = "erratum-" .. name })
          local begun = FORMAT == "latex" and pandoc.RawInline("latex", "\\leavevmode ") or pandoc.Str("")
          row.cells[1].contents = { pandoc.Plain({ begun, anchor }) }
        end
      end
    end
  end
  return targets
end

-- "chapter 1" are two words with a space between, "E4" and "[2]" are one; what surrounds them (brackets, points) stays
-- outside. A notebook's links to another notebook, or to a page among the references, lead there in the document.
local function link_names(targets)
  local function linked(target, words, before, after)
    local link = pandoc.Link(words, target)
    return { pandoc.Str(before), link, pandoc.Str(after) }
  end
  local function inlines(list)
    local out, i = pandoc.Inlines({}), 1
    while i <= #list do
      local item, space, number = list[i], list[i + 1], list[i + 2]
      local found
      if item.t == "Str" then
        local before, name, after = item.text:match("^(%p*)(E%d+)(%p*.*)$")
        if not name then before, name, after = item.text:match("^(%p-)(%[%d+%])(%p*)$") end
        if name and targets[name] and not after:match("^[%w]") then
          found = linked(targets[name], { pandoc.Str(name) }, before, after)
        elseif space and space.t == "Space" and number and number.t == "Str" then
          local open, word = item.text:match("^(%p*)(%a+)$")
          local digits, rest = number.text:match("^0?(%d+)(%D*)$")
          local kind = word and ({ chapter = "chapter", notebook = "chapter", table = "table" })[word:lower()]
          local target = kind and digits and targets[kind .. " " .. digits]
          if target then
            local shown = { pandoc.Str(word), pandoc.Str("\u{a0}"), pandoc.Str(number.text:match("^%d+")) }
            found, i = linked(target, shown, open, rest), i + 2
          end
        end
      end
      if found then out:extend(found) else out:insert(item) end
      i = i + 1
    end
    return out
  end
  local function stop(element) return element, false end
  local function redirect(link)
    local chapter = link.target:match("^0?(%d+)_[%w_-]+%.ipynb$")
    link.target = targets[chapter and "chapter " .. chapter or link.target] or link.target
    return link, false
  end
  return { traverse = "topdown", Header = stop, DefinitionList = stop, Link = redirect, Code = stop, Span = stop, Inlines = inlines }
end

-- The reader makes typographic quotes of those in code, too.
local function plain_quotes(code)
  for curly, plain in pairs({ ["“"] = '"', ["”"] = '"', ["‘"] = "'", ["’"] = "'" }) do code.text = code.text:gsub(curly, plain) end
  return code
end

-- No line ends between a number and its unit, around a sign of equality, or between a word and the number that it bears.
local NUMBERED = { seed = true, seeds = true, table = true, figure = true, chapter = true, notebook = true, epoch = true, section = true }
local function keep_together(list)
  for i = 2, #list - 1 do
    local before, space, after = list[i - 1], list[i], list[i + 1]
    if space.t == "Space" and before.t == "Str" and after.t == "Str" then
      local word, number = before.text:match("%a+$"), after.text:match("^%d")
      local unit = before.text:match("%d$") and after.text:match("^%%")
      local equal = before.text:match("^%p*%w$") and after.text == "=" or before.text == "=" and number
      if unit or equal or (word and number and NUMBERED[word:lower()]) then list[i] = pandoc.Str("\u{a0}") end
    end
  end
  return list
end

local function link_and_unlink(document)
  local names = targets_of_names(document)
  document = document:walk(link_names(names))
  local targets = {}
  local function note(element) targets["#" .. element.identifier] = true end
  document:walk({ Header = note, Figure = note, Table = note, Span = note })
  return document:walk({
    Link = function(link)
      if link.target:sub(1, 1) == "#" and not targets[link.target] then return link.content end
    end,
  })
end

-- Formulas -----------------------------------------------------------------------------------------------------------

-- Macros that a notebook defines hold from there on, as in a browser; pandoc applies them when it reads Markdown.
local MACRO = { "\\r?e?newcommand%*?%s*{?\\%a+}?%s*%[?%d*%]?%s*%b{}", "\\DeclareMathOperator%*?%s*%b{}%s*%b{}", "\\def%s*\\%a+%s*%b{}" }
local macros = ""

local function expand(element)
  local text = element.text
  for _, pattern in ipairs(MACRO) do
    text = text:gsub(pattern, function(definition) macros = macros .. definition .. "\n" return "" end)
  end
  if macros ~= "" and text:match("%S") then
    local read = pandoc.read(macros .. "\n$" .. text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "") .. "$", "markdown")
    local inline = read.blocks[#read.blocks].content[1]
    if inline.t == "Math" then text = inline.text end
  end
  if not text:match("%S") then return {} end
  element.text = text
  return element
end

local function quoted(text)
  return '"' .. text:gsub("%s+", " "):gsub("\\", "\\\\"):gsub('"', '\\"') .. '"'
end

local function formula(element)
  if FORMAT == "html5" and element.mathtype == "DisplayMath" then
    return pandoc.Span({ element }, { class = "display", tabindex = "0" }) -- a long one scrolls, by the keyboard as well
  end
  if FORMAT == "typst" then
    local open = "#[#set math.equation(alt: " .. quoted(element.text) .. ");"
    return { pandoc.RawInline("typst", open), element, pandoc.RawInline("typst", "]") }
  elseif FORMAT == "latex" and element.mathtype == "DisplayMath" then
    local fitted = "\\[\\adjustbox{max width=\\columnwidth}{$\\displaystyle " .. element.text .. "$}\\]"
    return pandoc.RawInline("latex", fitted)
  end
end

-- Figures and tables -------------------------------------------------------------------------------------------------

local made = {}
local place, chapters, counts = "", 0, {}

-- "Figure 2.3" is the third in chapter 2, in its notebook as here. What stands before the chapters is counted after an S
-- (summary), what follows them after an A (appendix).
local function enter(header)
  if header.level > 1 then return end
  local unnumbered, before = header.classes:includes("unnumbered"), place
  if not unnumbered then chapters = chapters + 1 end
  place = (not unnumbered and chapters or chapters == 0 and "S" or "A") .. "."
  if place ~= before then counts = {} end
end

local function alt_of(element)
  local alt = ""
  element:walk({ Image = function(image) alt = stringify(image.caption) end })
  return alt
end

local function append(caption, inline)
  local blocks = caption.long
  if #blocks == 0 then return end
  blocks[#blocks].content:extend({ pandoc.Space(), inline })
end

local function origin(element)
  local from = made[element.identifier]
  if not from or #element.caption.long == 0 then return end
  local file, notebook, cell = stringify(from.file), stringify(from.notebook), stringify(from.cell)
  if FORMAT == "typst" then
    append(element.caption, pandoc.RawInline("typst", "#made(" .. quoted(file) .. ")"))
  elseif FORMAT == "html5" then
    local html = '<a class="made" href="%s.ipynb#cell-id=%s">%s, cell %s</a>'
    append(element.caption, pandoc.RawInline("html", html:format(notebook, stringify(from.id), notebook, cell)))
  end
end

-- The number of a figure or table with a caption, which web page and Word file have as its first words.
local function numbered(element, kind)
  if #element.caption.long == 0 then return end
  counts[kind] = (counts[kind] or 0) + 1
  local number = place .. counts[kind]
  if FORMAT == "docx" or FORMAT == "html5" then
    local name = pandoc.Span({ pandoc.Strong({ pandoc.Str(kind .. "\u{a0}" .. number .. ".") }) }, { class = "number" })
    local first = element.caption.long[1].content
    first:insert(1, pandoc.Space())
    first:insert(1, name)
  end
  return number
end

local function typst_numbered(element, number, more)
  local set = number and "#set figure(numbering: _ => " .. quoted(number) .. ")\n" or ""
  return { pandoc.RawBlock("typst", "#[" .. set .. (more or "")), element, pandoc.RawBlock("typst", "]") }
end

local function tex(blocks)
  return (pandoc.write(pandoc.Pandoc(blocks), "latex"):gsub("%s+$", ""))
end

local function tex_caption(element, kind, number, more)
  local set = number and "\\renewcommand{\\the" .. kind:lower() .. "}{" .. number .. "}" or ""
  local anchor = element.identifier ~= "" and not more and "\\label{" .. element.identifier .. "}" or ""
  return #element.caption.long > 0 and set .. "\\caption{" .. tex(element.caption.long) .. (more or "") .. "}" .. anchor .. "\n" or ""
end

local function figure(element)
  if FORMAT == "html5" then element.attributes.tabindex = "0" end -- it scrolls on narrow screens
  origin(element)
  local number = numbered(element, "Figure")
  if FORMAT == "typst" then
    return typst_numbered(element, number, "#set image(alt: " .. quoted(alt_of(element)) .. ")")
  elseif FORMAT == "latex" then
    local source
    element:walk({ Image = function(image) source = image.src end })
    local picture = "\\includegraphics[width=0.92\\textwidth,height=0.42\\textheight,keepaspectratio]{" .. source .. "}\n"
    local float = "\\begin{figure*}[!t]\n\\centering\n" .. picture .. tex_caption(element, "Figure", number) .. "\\end{figure*}"
    return pandoc.RawBlock("latex", float)
  end
end

local function picture(image)
  if FORMAT == "typst" then
    local open = "#[#set image(alt: " .. quoted(stringify(image.caption)) .. ");"
    return { pandoc.RawInline("typst", open), image, pandoc.RawInline("typst", "]") }
  elseif FORMAT == "latex" then
    return pandoc.RawInline("latex", "\\includegraphics[max width=\\columnwidth]{" .. image.src .. "}")
  end
end

local function tex_row(row)
  local cells = {}
  for i, cell in ipairs(row.cells) do cells[i] = tex(cell.contents):gsub("\n+", " ") end
  return table.concat(cells, " & ") .. " \\\\\n"
end

local function tex_columns(tbl)
  local letters = {}
  for i, spec in ipairs(tbl.colspecs) do
    local share = spec[2] and string.format("%.3f", 0.985 * spec[2])
    local gap = "\\dimexpr" .. (share or "") .. "\\textwidth-2\\tabcolsep\\relax"
    local ragged = spec[1] == pandoc.AlignRight and "\\raggedleft" or "\\raggedright"
    letters[i] = share and ">{" .. ragged .. "\\arraybackslash}p{" .. gap .. "}" or spec[1] == pandoc.AlignRight and "r" or "l"
  end
  return table.concat(letters)
end

-- A table that fits a column stays in it; others go over both, and one of more than a page is continued.
local function tex_table(tbl, number)
  local wide = tonumber(tbl.attributes.width) > TEX_COLUMN
  local name = wide and "table*" or "table"
  local head = tbl.head.rows[1] and tex_row(tbl.head.rows[1]) .. "\\midrule\n" or ""
  local pieces, rows, lines = {}, {}, 0
  local function close()
    local caption = tex_caption(tbl, "Table", number, #pieces > 0 and " (continued)" or nil)
    local body = "\\begin{tabular}{" .. tex_columns(tbl) .. "}\n\\toprule\n" .. head .. table.concat(rows) .. "\\bottomrule\n\\end{tabular}"
    local fitted = wide and body or "\\adjustbox{max width=\\columnwidth}{" .. body .. "}"
    local float = "\\begin{" .. name .. "}[!t]\n" .. caption .. "\\centering\\scriptsize\n" .. fitted .. "\n\\end{" .. name .. "}"
    pieces[#pieces + 1] = pandoc.RawBlock("latex", float)
    rows, lines = {}, 0
  end
  for _, row in ipairs(body_rows(tbl)) do
    local more = lines_of(row, tbl)
    if lines + more > TEX_LINES and #rows > 0 then close() end
    rows[#rows + 1], lines = tex_row(row), lines + more
  end
  close()
  return pieces
end

-- The caption of a web page's table stands above the box in which a wide table scrolls, so it is never cut.
local function html_table(tbl)
  local caption = tbl.caption.long
  tbl.caption.long, tbl.attributes.width = {}, nil
  for _, row in ipairs(tbl.head.rows) do
    for _, cell in ipairs(row.cells) do
      if stringify(cell.contents) == "" then
        cell.contents = { pandoc.Plain({ pandoc.Span({ pandoc.Str("row") }, { class = "unseen" }) }) }
      end
    end
  end
  if #caption == 0 then return pandoc.Div({ tbl }, { class = "scroll", tabindex = "0" }) end
  local id = tbl.identifier
  tbl.identifier = ""
  local label = "caption-" .. id:gsub(":", "-")
  local opened = pandoc.RawBlock("html", ('<figure class="table" id="%s"><figcaption id="%s">'):format(id, label))
  local box = { class = "scroll", tabindex = "0", role = "region", ["aria-labelledby"] = label }
  return { opened, pandoc.Plain(caption[1].content), pandoc.RawBlock("html", "</figcaption>"), pandoc.Div({ tbl }, box), pandoc.RawBlock("html", "</figure>") }
end

local function any_table(tbl)
  origin(tbl)
  local number = numbered(tbl, "Table")
  if FORMAT == "docx" then
    local function cell(plain) return pandoc.Div({ pandoc.Para(plain.content) }, { ["custom-style"] = "Table Cell" }) end
    tbl = tbl:walk({ Plain = cell })
  end
  if FORMAT == "latex" then return tex_table(tbl, number) end
  if FORMAT == "html5" then return html_table(tbl) end
  tbl.attributes.width = nil
  return FORMAT == "typst" and typst_numbered(tbl, number) or tbl
end

local function code(block)
  if FORMAT == "html5" then
    block.attributes.tabindex = "0"
    return block
  end
  if FORMAT ~= "latex" then return end
  local options = "[breaklines,breakanywhere,fontsize=\\scriptsize]"
  return pandoc.RawBlock("latex", "\\begin{Verbatim}" .. options .. "\n" .. block.text .. "\n\\end{Verbatim}")
end

-- Sections -----------------------------------------------------------------------------------------------------------

-- Figures wait for a free place at the top or bottom of a page, but none is carried into the next chapter.
local FLUSH = { typst = "#place.flush()\n#pagebreak(weak: true)", latex = "\\FloatBarrier" }

local function begin_section(header)
  if header.level == 1 and FLUSH[FORMAT] then return { pandoc.RawBlock(FORMAT, FLUSH[FORMAT]), header } end
end

-- Word has no title page of its own: notices and facts stand before the text.
local function word_cover(document)
  if FORMAT ~= "docx" then return end
  local blocks = pandoc.Blocks({})
  for _, notice in ipairs(document.meta.notices or {}) do blocks:insert(pandoc.BlockQuote({ pandoc.Para(notice) })) end
  for _, fact in ipairs(document.meta.facts or {}) do
    local line = pandoc.Inlines({ pandoc.Strong(fact.name), pandoc.Str(": ") })
    line:extend(fact.value)
    blocks:insert(pandoc.Para(line))
  end
  blocks:extend(document.blocks)
  document.blocks = blocks
  return document
end

return {
  { Meta = function(meta) made = meta.made or {} end },
  { Math = expand, Code = plain_quotes },
  { Table = lay_out },
  { Pandoc = link_and_unlink },
  { Inlines = keep_together },
  { Math = formula, Header = begin_section, CodeBlock = code },
  { traverse = "topdown", Header = enter, Figure = function(f) local new = figure(f) return new or f, false end, Table = function(t) return any_table(t), false end, Image = picture },
  { Pandoc = word_cover },
}
